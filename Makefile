# Run from a checkout on any Debian 12 or later: what is missing is installed by `setup`.

PYTHON ?= /usr/bin/python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
SOAK_MINUTES ?= 120
# Linters come from PyPI, pinned: Debian 12's are too old for what the code says.
LINTERS = ruff==0.17.6 mypy==2.4.1 types-PyYAML==6.0.12.20261113

# What the program runs on, then what tests it, then the machine that it is tested in, then the package.
PACKAGES = \
	klibc-utils python3 python3-dbus-next python3-sdnotify python3-systemd python3-yaml dbus dbus-bin systemd \
	python3-pytest python3-pytest-asyncio python3-pytest-timeout python3-hypothesis python3-coverage \
	python3-venv util-linux util-linux-extra procps \
	bash zsh less tmux gettext groff-base mandoc \
	mmdebstrap debian-archive-keyring ca-certificates gpg gpgv mount e2fsprogs \
	qemu-system-x86 qemu-utils openssh-client \
	build-essential debhelper dh-python dpkg-dev fakeroot pybuild-plugin-pyproject python3-all python3-setuptools

# In front of what only root may do; empty for root, and when there is no sudo (`need-root` then says so).
ROOT := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

export PYTHONDONTWRITEBYTECODE = 1

.PHONY: pictures help setup need-root test test-systems test-native test-load test-metrics bench bench-vm lint \
	faults test-faults-native test-faults soak demo demo-native demo-vm deb pot clean

help:
	@echo 'make demo         show the guard at work: the two that follow, one after the other'
	@echo 'make demo-native  on this machine: 1,000 cgroups come and go beside a live neighbour'
	@echo 'make demo-vm      in QEMU: logins on a Debian without and with the guard'
	@echo 'make test         all tests, those in a virtual machine with Debian 12 too'
	@echo 'make test-systems those in virtual machines, with Debian 13, cgroup v1 and a 7.x kernel as well'
	@echo 'make test-native  only the tests that need no virtual machine'
	@echo 'make test-load    the load tests with what README.md tells figures of'
	@echo 'make faults       all faults in full, kept in docs/faults.json: the two that follow'
	@echo 'make test-faults-native  a thousand kills, errors from every file, hostile users, fuzz'
	@echo 'make test-faults  the same in virtual machines, on each system: kills, resets, losses, limits'
	@echo 'make soak         $(SOAK_MINUTES) minutes (SOAK_MINUTES) of logins, cron, services and restarts at random'
	@echo 'make coverage     branches of logindguard/ that the native tests run'
	@echo 'make test-metrics metrics, alert rules and their tests by promtool, which it fetches from Debian'
	@echo 'make bench        the guard beside its rivals at full size, on this machine alone; BENCH_ARGS=--help'
	@echo 'make bench-vm     the same inside virtual machines with Debian 12 and 13'
	@echo 'make pictures     those in docs/pictures, by a browser that it fetches from Debian'
	@echo 'make man          the man pages, into build/man'
	@echo 'make lint         ruff and mypy over code and tests'
	@echo 'make deb          build the Debian package into dist/'
	@echo 'make deb-clean    the same in a clean chroot of SUITE=bookworm or trixie, where it is tried too, into dist/SUITE/'
	@echo 'make test-package upgrade, removal and purge of the package in virtual machines with Debian 12 and 13'
	@echo 'make lintian      build so on both, and have their lintian look at everything'
	@echo 'make pot          take the texts to translate from the polkit policy into polkit/po/'
	@echo 'make setup        install what these need (each of them does so itself)'
	@echo 'make clean        remove what was built'

need-root:
	@[ "$$(id -u)" = 0 ] || [ -n "$(ROOT)" ] || \
	  { echo 'This needs root, and sudo is not installed: run it as root.' >&2; exit 1; }

# apt-get is called, and root asked for, only when something is missing.
setup:
	@command -v dpkg-query apt-get >/dev/null || \
	  { echo 'make setup knows only Debian; by hand: $(PACKAGES)' >&2; exit 1; }; \
	missing=; for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${db:Status-Status}\n' "$$package" 2>/dev/null | grep -qx installed || \
	  missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	$(MAKE) --no-print-directory need-root || exit 1; \
	echo "Installing$$missing"; \
	apt="$(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"; \
	$$apt update && $$apt install -y --no-install-recommends $$missing </dev/null

# What root makes must not get in the way of a checkout's owner: not in build/ and dist/, and no caches.
test: setup need-root
	@mkdir -p build dist
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider $(PYTEST_ARGS)

test-systems: setup need-root
	@mkdir -p build dist
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 LOGINDGUARD_SYSTEMS=all $(PYTHON) -m pytest -p no:cacheprovider \
	  -m vm $(PYTEST_ARGS)

test-native: setup need-root
	@mkdir -p build dist
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider -m 'not vm' $(PYTEST_ARGS)

test-load: setup need-root
	@mkdir -p build dist
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 LOAD=full $(PYTHON) -m pytest -p no:cacheprovider \
	  tests/native/test_flood.py tests/native/test_answers.py tests/kernel/v1/test_removal.py \
	  tests/vm/test_pam.py tests/vm/test_pam_faults.py tests/vm/test_stop_jobs.py \
	  tests/vm/test_ladder.py tests/vm/test_restart.py tests/vm/test_see.py tests/vm/test_rig.py \
	  tests/vm/test_cron.py tests/vm/test_native_demo.py tests/vm/test_service.py \
	  -v $(PYTEST_ARGS)

# What must hold under faults, in full: `make test` has a cut of each. A run is had again by its seed,
# which each test tells: LOGINDGUARD_SEED=1 make test-faults-native PYTEST_ARGS='-k kill'
faults: test-faults-native test-faults

test-faults-native: setup need-root
	@mkdir -p build dist
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 FAULTS=full $(if $(LOGINDGUARD_SEED),LOGINDGUARD_SEED=$(LOGINDGUARD_SEED)) \
	  $(PYTHON) -m pytest -p no:cacheprovider tests/faults $(PYTEST_ARGS)

test-faults: setup need-root
	@mkdir -p build dist
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 FAULTS=full LOAD=full LOGINDGUARD_KILL_CYCLES=100 \
	  LOGINDGUARD_SYSTEMS=all $(if $(LOGINDGUARD_SEED),LOGINDGUARD_SEED=$(LOGINDGUARD_SEED)) \
	  $(PYTHON) -m pytest -p no:cacheprovider tests/vm/faults --deselect tests/vm/faults/test_soak.py $(PYTEST_ARGS)

soak: setup need-root
	@mkdir -p build dist
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 FAULTS=full LOAD=full SOAK_MINUTES=$(SOAK_MINUTES) \
	  $(if $(LOGINDGUARD_SEED),LOGINDGUARD_SEED=$(LOGINDGUARD_SEED)) \
	  $(PYTHON) -m pytest -p no:cacheprovider tests/vm/faults/test_soak.py $(PYTEST_ARGS)

# Branches of logindguard/ that the native tests run, in the processes that they start too. Timed ones may
# fail meanwhile, since measuring slows all down; `make test` says whether they hold.
MEASURED = -m 'not vm' --deselect tests/native/test_daemon.py::test_an_idle_minute

.PHONY: coverage
coverage: setup need-root
	rm -rf build/coverage
	mkdir -p build && mkdir -m 1777 build/coverage
	-$(ROOT) env PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$(CURDIR)/tests/coverage \
	  $(PYTHON) -m pytest -q -p no:cacheprovider $(MEASURED) $(PYTEST_ARGS)
	$(PYTHON) -m coverage combine --data-file=build/coverage/data
	$(PYTHON) -m coverage report --data-file=build/coverage/data --ignore-errors --omit="*/build/*"

# The one program out of Debian's prometheus: to install that would start a server.
PROMTOOL = build/promtool/usr/bin/promtool

$(PROMTOOL): | setup
	rm -rf build/promtool
	mkdir -p build/promtool
	cd build/promtool && apt-get -q download prometheus && \
	  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xf - ./usr/bin/promtool && rm prometheus_*.deb

test-metrics: $(PROMTOOL)
	$(PYTHON) -m tests.prometheus | $(PROMTOOL) check metrics
	$(PROMTOOL) check rules docs/prometheus/logindguard.rules.yaml
	$(PROMTOOL) test rules docs/prometheus/logindguard.rules.test.yaml

# Wants the machine for itself. BENCH_ARGS: which benches, at what size.
bench: setup need-root
	@mkdir -p build
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m tests.bench $(BENCH_ARGS)

bench-vm: setup need-root
	@mkdir -p build
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m tests.bench.vm $(BENCH_ARGS)

# A browser below build/ looks at the page of a report and at what terminals show.
pictures: setup need-root
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m tests.pictures

demo: DEMO = tests.demo
demo-native: DEMO = tests.demo.native
demo-vm: DEMO = tests.demo.vm

demo demo-native demo-vm: setup need-root
	@mkdir -p build dist
	@$(ROOT) env PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m $(DEMO)

.venv/linters: Makefile | setup
	rm -rf .venv
	$(PYTHON) -m venv --system-site-packages .venv
	.venv/bin/pip --disable-pip-version-check install --quiet $(LINTERS)
	@touch $@

lint: setup .venv/linters
	.venv/bin/ruff check .
	.venv/bin/mypy

.PHONY: man
man: setup
	$(PYTHON) man/generate.py build/man

# Where it is built: what comes out is the same wherever, and whenever, that is.
DEB_BUILD = build/deb
DEB_OUT = dist
SUITE = bookworm

# A copy, so that nothing is built inside the checkout; `tar` because a checkout need not be git's;
# a PATH of its own, because the build calls `python3.11`, which must be Debian's.
deb: setup
	rm -rf $(DEB_BUILD)
	mkdir -p $(DEB_BUILD)/logindguard $(DEB_OUT)
	tar -cf - --exclude-vcs --exclude=./build --exclude=./dist --exclude=./.venv --exclude='.*_cache' \
	  --exclude=__pycache__ --exclude='*.egg-info' . | tar -xf - -C $(DEB_BUILD)/logindguard
	find $(DEB_BUILD) -exec touch -h -d "@$$(dpkg-parsechangelog -S Timestamp)" {} +
	cd $(DEB_BUILD)/logindguard && PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg-buildpackage -us -uc -b
	rm -f $(DEB_OUT)/logindguard_*
	mv $(DEB_BUILD)/*.deb $(DEB_BUILD)/*.changes $(DEB_BUILD)/*.buildinfo $(DEB_OUT)/
	rm -rf $(DEB_BUILD)

.PHONY: deb-clean test-package lintian

# In a chroot that mmdebstrap makes of $(SUITE) with nothing but what the build needs: into dist/$(SUITE)/.
# It is installed there then, tried (debian/tests/smoke) and purged.
deb-clean: setup need-root
	$(ROOT) debian/build-clean $(SUITE) dist/$(SUITE)

# What autopkgtest would run of debian/tests, on machines of ours.
test-package: setup need-root
	@mkdir -p build dist
	$(ROOT) env PYTHONDONTWRITEBYTECODE=1 LOAD=full LOGINDGUARD_SYSTEMS="bookworm trixie" \
	  $(PYTHON) -m pytest -p no:cacheprovider tests/vm/test_package.py tests/vm/test_restart.py $(PYTEST_ARGS)

# The source too, by the lintian of each suite; anything that it says is a failure.
lintian: setup need-root
	for suite in bookworm trixie; do $(ROOT) debian/build-clean $$suite dist/$$suite lintian || exit 1; done

# A translation is polkit/po/LANGUAGE.po: the package installs each one, and polkit finds it by gettext-domain.
pot: setup
	xgettext --its=polkit/po/polkit.its --from-code=UTF-8 --package-name=logindguard --sort-by-file \
	  -o polkit/po/logindguard.pot polkit/org.logindguard1.policy
	sed -i '/^"POT-Creation-Date:/d' polkit/po/logindguard.pot
	for po in polkit/po/*.po; do msgmerge --quiet --update --backup=none $$po polkit/po/logindguard.pot; done

clean:
	$(ROOT) rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
