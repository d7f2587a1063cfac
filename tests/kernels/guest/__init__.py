"""What runs inside of a guest, with nothing but the standard library and what otelbpf depends on."""
