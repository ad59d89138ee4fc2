"""hgmm: multimodal heterogeneous graphs on DGL."""

__version__ = "0.1.0"
