"""Reports: what is shown of results folders; they never import torch."""
