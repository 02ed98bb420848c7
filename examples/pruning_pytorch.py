"""Prune a network in your own training loop: 10% of its weights stay. PyTorch and scikit-learn's digits; seconds.

    python examples/pruning_pytorch.py

Four lines are robust-edge's. After `finish` the penalty is 0 and `step` does nothing, so that the loop need not change.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from robust_edge import pruning

EPOCHS, MASKED_FROM = 8, 5
torch.manual_seed(0)
images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = images.float().view(-1, 1, 8, 8) / 16
train, test = slice(0, 1440), slice(1440, None)
body = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU()]
model = nn.Sequential(*body, nn.Flatten(), nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)

state = pruning.init(model, (1, 8, 8), keep=0.1, scheme="irregular", rho=0.01, rho_growth=1.02, rho_max=0.1)
for epoch in range(EPOCHS):
    if epoch == MASKED_FROM:
        state = pruning.finish(state, model, optimizer)
    for batch in torch.randperm(1440).split(64):
        loss = functional.cross_entropy(model(images[train][batch]), labels[train][batch])
        loss = loss + pruning.penalty(state, model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = pruning.step(state, model)

weights = pruning.prunable_parameters(model).values()
kept, total = sum(int(weight.count_nonzero()) for weight in weights), sum(weight.numel() for weight in weights)
accuracy = (model.eval()(images[test]).argmax(1) == labels[test]).float().mean()
print(f"{kept} of {total} weights kept, accuracy {accuracy:.3f}")
