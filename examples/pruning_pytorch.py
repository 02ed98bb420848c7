"""Prune a network in your own training loop: 10% of its weights stay. PyTorch and scikit-learn's digits; seconds."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from robust_edge import pruning

torch.manual_seed(0)
images, labels = map(torch.tensor, load_digits(return_X_y=True))
images = images.float().view(-1, 1, 8, 8) / 16
body = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU()]
model = nn.Sequential(*body, nn.Flatten(), nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)

state = pruning.init(model, (1, 8, 8), keep=0.1, scheme="irregular", rho=0.01, rho_growth=1.02, rho_max=0.1)
for epoch in range(8):
    if epoch == 5:  # from here on only the weights that stay are trained: the penalty is 0, and `step` does nothing
        state = pruning.finish(state, model, optimizer)
    for batch in torch.randperm(1440).split(64):
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch]) + pruning.penalty(state, model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = pruning.step(state, model)

weights = torch.cat([weight.flatten() for weight in pruning.prunable_parameters(model).values()])
accuracy = (model.eval()(images[1440:]).argmax(1) == labels[1440:]).float().mean()
print(f"{weights.count_nonzero()} of {weights.numel()} weights kept, accuracy {accuracy:.3f}")
