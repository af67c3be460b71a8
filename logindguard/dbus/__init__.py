"""What tools call over D-Bus. The only package besides signals/ that knows dbus-next."""
