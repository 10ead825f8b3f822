"""What the blocks do: figures of tensors, with alt text and a printed summary."""
