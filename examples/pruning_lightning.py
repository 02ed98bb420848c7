"""Prune a network that Lightning trains: 10% of its weights stay. scikit-learn's digits; seconds.

    pip install 'robust-edge[train]' lightning
    python examples/pruning_lightning.py

Four hooks call robust-edge. A checkpoint holds what changes if `on_save_checkpoint` stores `self.state.state_dict()`.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from robust_edge import pruning
from robust_edge.torchvision_compat import torchvision_module

torchvision_module("models")  # Lightning imports torchvision, which fails beside a CPU-only torch without this
import lightning  # noqa: E402

EPOCHS, MASKED_FROM = 8, 5


class Pruned(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        body = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3)]
        self.net = nn.Sequential(*body, nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)

    def on_fit_start(self):  # the network is on its device now
        self.state = pruning.init(self.net, (1, 8, 8), keep=0.1, rho=0.01, rho_growth=1.02, rho_max=0.1)

    def on_train_epoch_start(self):
        if self.current_epoch == MASKED_FROM:
            self.state = pruning.finish(self.state, self.net, self.optimizers())

    def training_step(self, batch, index):
        return functional.cross_entropy(self.net(batch[0]), batch[1]) + pruning.penalty(self.state, self.net)

    def on_train_batch_end(self, outputs, batch, index):
        self.state = pruning.step(self.state, self.net)


torch.manual_seed(0)
images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = images.float().view(-1, 1, 8, 8) / 16
loader = DataLoader(TensorDataset(images[:1440], labels[:1440]), 64, shuffle=True)
module = Pruned()
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
lightning.Trainer(max_epochs=EPOCHS, accelerator="auto", devices=1, **quiet).fit(module, loader)

weights = pruning.prunable_parameters(module.net).values()
kept, total = sum(int(weight.count_nonzero()) for weight in weights), sum(weight.numel() for weight in weights)
accuracy = (module.net.cpu().eval()(images[1440:]).argmax(1) == labels[1440:]).float().mean()
print(f"{kept} of {total} weights kept, accuracy {accuracy:.3f}")
