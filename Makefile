# The two that matter first: `make demo` and `make test`. Both want root and a Debian or Fedora.

CARGO ?= cargo
# A failure is one line and the machine's logs; where in the harness it happened says nothing.
export RUST_LIB_BACKTRACE = 0
PREFIX ?= /usr/local
LIBEXEC ?= /usr/libexec
UNITS ?= /usr/lib/systemd/system
GENERATORS ?= /usr/lib/systemd/system-generators
# Where the built programs are. `make install` builds the release ones if they are not there.
PROGRAMS ?= target/release

.PHONY: all bench check deps demo fuzz kubelet machine test test-long install

# The runtime starts a quarter quicker without shared libraries to load. Where there is no static libc it goes without that.
STATIC := $(if $(filter /%,$(shell cc -print-file-name=libc.a 2>/dev/null)),-C target-feature=+crt-static)

all:
	$(CARGO) build --release --bin sysctr
	$(CARGO) rustc --release --bin sysctr-runtime -- $(STATIC)
	$(CARGO) rustc --release --bin sysctr-generator -- $(STATIC)

deps:
	@tests/deps.sh

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --test vm --test demo -- -D warnings
	$(CARGO) test

# Scenarios that take minutes each, or whose like is run anyway: `make test-long` has them.
LONG = runtimes_agree failing_containers_do_not_stop_a_boot unusual_updates_and_one_bad_of_twenty \
    state_in_another_format_comes_and_goes_with_its_program runc_in_place_of_the_bundled_runtime \
    an_update_that_fails_behind_a_boot_goes_back httpd_leaves_nothing_behind etcd_keeps_its_data_without_purge

# Two machines at a time, of which one at most is emulated.
test: deps check
	$(CARGO) test --test vm -- --test-threads=2 $(LONG:%=--skip %)

# Also what takes longer: Debian 12, whose crun and runc differ in other ways than is written down, and every scenario in QEMU.
test-long: deps check
	$(CARGO) test --test cuts -- --ignored --test-threads=1
	$(CARGO) test --test vm -- --test-threads=1 --include-ignored
	SYSCTR_TEST_SUITE=bookworm $(CARGO) test --test vm -- --test-threads=1 --skip runtimes_agree

# Compiles kubelet, a quarter of an hour on two cores, and boots it: alone, and behind etcd, flanneld and Docker.
kubelet: deps
	$(CARGO) test --test vm kubelet -- --test-threads=1 --include-ignored

demo: deps
	@$(CARGO) build --bins --test demo
	@$(CARGO) test --quiet --test demo

# Times sysctr beside its peers, on a machine that should be quiet. No test calls it. BENCH='--rounds 1' makes it shorter.
bench: deps
	$(MAKE) --no-print-directory all
	$(CARGO) bench --profile dev --bench import -- $(BENCH)
	$(CARGO) bench --profile dev --bench growth -- $(BENCH)
	$(CARGO) bench --profile dev --bench start -- $(BENCH)
	$(CARGO) bench --profile dev --bench boot -- $(BENCH)

# Each reader of what images bring, for half an hour; needs cargo-fuzz. FUZZ='layer' chooses, FUZZ_SECONDS shortens. No nightly compiler
# is needed, as nothing watches memory: there is no unsafe code in them.
FUZZ ?= layer manifest reference template
FUZZ_SECONDS ?= 1800
fuzz:
	for target in $(FUZZ); do \
	    $(CARGO) fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 || exit 1; done

# A shell in the machine of the demo.
machine: deps
	@$(CARGO) test --quiet --test demo -- --shell

$(PROGRAMS)/sysctr $(PROGRAMS)/sysctr-runtime $(PROGRAMS)/sysctr-generator:
	$(MAKE) --no-print-directory all

SHARE = $(DESTDIR)$(PREFIX)/share
install: $(PROGRAMS)/sysctr $(PROGRAMS)/sysctr-runtime $(PROGRAMS)/sysctr-generator
	install -D $(if $(STRIP),-s) -m 755 $(PROGRAMS)/sysctr $(DESTDIR)$(PREFIX)/bin/sysctr
	install -D $(if $(STRIP),-s) -m 755 $(PROGRAMS)/sysctr-runtime $(DESTDIR)$(LIBEXEC)/sysctr/sysctr-runtime
	install -D $(if $(STRIP),-s) -m 755 $(PROGRAMS)/sysctr-generator $(DESTDIR)$(GENERATORS)/sysctr-generator
	install -d $(DESTDIR)$(UNITS)/sysinit.target.wants $(DESTDIR)$(UNITS)/multi-user.target.wants
	set -e; for unit in units/*; do \
	    sed 's|@bindir@|$(PREFIX)/bin|' $$unit > $(DESTDIR)$(UNITS)/$$(basename $$unit); done
# Debian's own preset enables what is installed.
	install -d $(DESTDIR)$(UNITS)-preset
	echo 'disable sysctr-update.timer' > $(DESTDIR)$(UNITS)-preset/60-sysctr-update.preset
	ln -sf ../sysctr-recover.service $(DESTDIR)$(UNITS)/sysinit.target.wants/sysctr-recover.service
	ln -sf ../sysctr-settle.service $(DESTDIR)$(UNITS)/multi-user.target.wants/sysctr-settle.service
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
	    $(SHARE)/fish/vendor_completions.d
	$(PROGRAMS)/sysctr man $(SHARE)/man/man1
	$(PROGRAMS)/sysctr completions bash > $(SHARE)/bash-completion/completions/sysctr
	$(PROGRAMS)/sysctr completions zsh > $(SHARE)/zsh/site-functions/_sysctr
	$(PROGRAMS)/sysctr completions fish > $(SHARE)/fish/vendor_completions.d/sysctr.fish
