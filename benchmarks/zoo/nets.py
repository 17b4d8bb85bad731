"""All nets of the benchmark by name."""

from zoo.more_nets import more_nets
from zoo.timm_nets import timm_nets
from zoo.torchvision_nets import torchvision_nets
from zoo.transformers_nets import transformers_nets
from zoo.ultralytics_nets import ultralytics_nets

ARCHITECTURES = {
    net.name: net
    for nets in (ultralytics_nets, torchvision_nets, timm_nets, transformers_nets, more_nets)
    for net in nets()
}
