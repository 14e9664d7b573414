"""Access control: tokens, rights and certificates."""
