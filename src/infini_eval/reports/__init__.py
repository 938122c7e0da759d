"""Reports: one file each; they read results folders only and never import torch."""
