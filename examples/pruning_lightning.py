"""Prune a network that Lightning trains (`pip install lightning`): 10% of its weights stay. scikit-learn's digits."""

import torch
from sklearn.datasets import load_digits
from torch.nn import Conv2d, Flatten, Linear, ReLU, Sequential, functional

from robust_edge import pruning, torchvision_compat

torchvision_compat.prepare_torchvision()  # Lightning imports torchvision, which fails beside CPU-only torch without it
import lightning  # noqa: E402


class Pruned(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Sequential(Conv2d(1, 16, 3, 2, 1), ReLU(), Conv2d(16, 32, 3), ReLU(), Flatten(), Linear(128, 10))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)

    def on_fit_start(self):  # the network is on its device now
        self.state = pruning.init(self.net, (1, 8, 8), keep=0.1, rho=0.01, rho_growth=1.02, rho_max=0.1)

    def training_step(self, batch, index):
        return functional.cross_entropy(self.net(batch[0]), batch[1]) + pruning.penalty(self.state, self.net)

    def on_train_batch_end(self, *_):
        self.state = pruning.step(self.state, self.net)

    def on_train_epoch_end(self):
        if self.current_epoch == 4:  # from here on only the weights that stay are trained
            self.state = pruning.finish(self.state, self.net, self.optimizers())


images, labels = map(torch.tensor, load_digits(return_X_y=True))
images = images.float().view(-1, 1, 8, 8) / 16
model, data = Pruned(), torch.utils.data.TensorDataset(images[:1440], labels[:1440])
trainer = lightning.Trainer(max_epochs=8, devices=1, logger=False, enable_checkpointing=False)
trainer.fit(model, torch.utils.data.DataLoader(data, 64, shuffle=True))
weights = torch.cat([weight.flatten() for weight in pruning.prunable_parameters(model.net).values()])
right = model.net.cpu().eval()(images[1440:]).argmax(1) == labels[1440:]
print(f"{weights.count_nonzero()} of {weights.numel()} weights kept, accuracy {right.float().mean():.3f}")
