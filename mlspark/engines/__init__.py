"""What computes: tensors in, outputs out."""
