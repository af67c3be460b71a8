"""logindguardctl: shows and steers the service, over the bus alone where it runs."""
