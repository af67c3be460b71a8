import sys

try:
    from .app import main
except KeyboardInterrupt:  # by who does not wait until it is loaded
    sys.exit(130)

sys.exit(main())
