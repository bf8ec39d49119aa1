"""Networks. They import torch and nothing of deconvnet."""
