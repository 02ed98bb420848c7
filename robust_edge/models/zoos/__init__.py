"""Networks of installed libraries by name: `torchvision/NAME`, `timm/NAME`; one file per library."""
