"""SDXL's UNet as a family of denoisers."""
