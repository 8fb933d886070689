"""The processes of a server: who starts them, and swaps them."""
