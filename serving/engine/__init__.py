"""What stands between the web and a bundle: methods by name, here or in another process."""
