"""What people say of images: packets, judgments, agreement."""
