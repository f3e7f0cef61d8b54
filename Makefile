# The verbs of the project; `make` alone lists them.

# rustup's toolchain, also where Debian's cargo-web (which only builds the XDP program) comes first in PATH.
CARGO_HOME ?= $(HOME)/.cargo
export PATH := $(CARGO_HOME)/bin:$(PATH)

CARGO := cargo

# The XDP program is built once, here, and embedded by every cargo command below. Without this variable cargo builds it
# by itself, once for each profile.
XDP_OBJECT := $(CURDIR)/target/ebpf/tidegate.o
export TIDEGATE_EBPF_OBJECT := $(XDP_OBJECT)

EBPF := --manifest-path ebpf/Cargo.toml

# What is delivered and measured is optimized by a profile of the same programs under load, made when there is none.
# PGO=0 does without, and so does what is built where none can be made.
PGO ?= 1
PROFILE_DATA := $(if $(filter-out 0,$(PGO)),target/profile/tidegate.profdata)
# The packages with programs that are released. Cargo builds a dependency once for each set of features, and those follow
# from the packages that are asked for, so every release build and test asks for the same ones.
PROGRAMS := --package tidegate --package tidegate-bench --package tidegate-sim
RELEASE_ENVIRONMENT := $(if $(PROFILE_DATA),RUSTFLAGS="$$(scripts/profile.sh --flags)")
RELEASE := $(RELEASE_ENVIRONMENT) $(CARGO)

LOADER := target/debug/examples/load_objects

.PHONY: help setup ebpf profile build demo run test test-pages test-dashboard test-kernels test-vm test-coexistence test-loom test-miri duplicates install deb container test-deploy test-deb sim impaired goodput fairness resilience flood-memory compare bench-engine bench-held bench-hostile bench-instructions fuzz docs lint clean
.DEFAULT_GOAL := help

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing (Debian 12; needs root if something is)
	@scripts/setup.sh

ebpf: setup
	@scripts/build-ebpf.sh $(XDP_OBJECT)

target/profile/tidegate.profdata: | ebpf
	@scripts/profile.sh || echo "make: WARNING: the release is built without a profile, and will be slower" >&2

profile: ebpf ## Make the profile anew by which the release is optimized, as after larger changes
	@scripts/profile.sh

build: ebpf $(PROFILE_DATA) ## Build target/release/tidegate, tidegate-bench and tidegate-sim: [PGO=0]
	$(RELEASE) build --release --locked $(PROGRAMS)

# A first look is to take minutes: without a profile, which is made by building everything once more and running it, and
# without optimizing across crates.
demo: ebpf ## Serve files in a lab of two namespaces, fetch them, show which way they took (root)
	$(CARGO) build --profile demo --locked --package tidegate --package tidegate-bench
	@TIDEGATE_PROGRAMS=$(CURDIR)/target/demo scripts/demo.sh

run: build ## Serve on a real interface: IFACE=eth1 LISTEN="http=192.0.2.1:80 ..." [ROOT=DIR] [QUEUES=N] (root)
	@test -n "$(IFACE)" && test -n "$(LISTEN)" || { \
		echo 'usage: make run IFACE=eth1 LISTEN="http=192.0.2.1:80 http=[2001:db8::1]:80" [ROOT=DIR] [QUEUES=N]' >&2; \
		exit 2; }
	target/release/tidegate serve --iface "$(IFACE)" $(foreach listen,$(LISTEN),--listen "$(listen)") \
		$(if $(ROOT),--root "$(ROOT)") $(if $(QUEUES),--queues "$(QUEUES)")

# Units and segment scripts with debug assertions, in the profile that links many small programs quickly; the simulation
# and the lab with what is delivered. The server's tests take turns in a lab, so threads would only wait for each other.
test: build ## Run every test: units, XDP verdicts, and the lab end to end (root, or the last two are skipped)
	$(CARGO) test --workspace --locked
	$(RELEASE) test --release --locked $(PROGRAMS) --test simulation
	$(RELEASE_ENVIRONMENT) scripts/test-lab.sh $(CARGO) test --release --locked $(PROGRAMS) --test lab

test-kernels: ebpf ## Have Debian's kernels take every XDP program, in QEMU (network): [KERNELS="bookworm trixie ..."]
	$(CARGO) build --locked --package tidegate-runtime --example load_objects
	KERNELS="$(KERNELS)" scripts/vm/test-kernels.sh $(LOADER) $(dir $(XDP_OBJECT))*.o

test-coexistence: build ## Run tidegate beside Debian's xdp-filter, in QEMU (network): [SUITES="bookworm trixie ..."]
	@scripts/vm/test-coexistence.sh target/release/tidegate $(dir $(XDP_OBJECT))xdp-pass.o

# A build of its own: what the threads share is loom's there, which takes every step that may come next in turn.
test-loom: ## Run small cases of what crosses between shards in every order of their threads' steps
	RUSTFLAGS="--cfg loom" $(CARGO) test --locked --package tidegate-exchange --lib --target-dir target/loom models::

test-vm: build ## Serve behind emulated NICs with Debian's kernels, in QEMU (root, network): [KERNELS="bookworm ..." NICS="igb ..."]
	KERNELS="$(KERNELS)" NICS="$(NICS)" scripts/vm/test-vm.sh target/release/tidegate target/release/tidegate-bench
	scripts/vm/test-bond.sh target/release/tidegate

# Isolated from the system, the tests could not make a poll.
test-miri: ## Run the tests of what crosses between shards where undefined behaviour and data races are seen (nightly, miri)
	MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test --locked --target-dir target/miri \
		--package tidegate-abi --package tidegate-exchange --lib

install: ## Install what `make build` has made, with unit, man pages and completions: [DESTDIR=DIR PREFIX=/usr/local]
	@DESTDIR="$(DESTDIR)" PREFIX="$(or $(PREFIX),/usr/local)" scripts/deploy/install.sh

deb: build ## Make a Debian package in target/debian (cargo install cargo-deb)
	scripts/deploy/generate.sh target/release/tidegate target/deploy/generated
	$(CARGO) deb --no-build --locked --package tidegate

# The second package is the first one with another version: the service is restarted by it.
test-deb: build ## Install, serve, upgrade and purge the Debian package in QEMU (root, debootstrap, network)
	scripts/deploy/generate.sh target/release/tidegate target/deploy/generated
	$(CARGO) deb --no-build --locked --package tidegate --output target/deploy/first.deb
	$(CARGO) deb --no-build --locked --package tidegate --deb-version 0.1.0+newer-1 --output target/deploy/newer.deb
	scripts/vm/test-deb.sh target/deploy/first.deb target/deploy/newer.deb

container: build ## Make a container image of the program and its libraries (buildah)
	scripts/deploy/rootfs.sh target/release/tidegate target/deploy/rootfs
	buildah build --isolation chroot --tag tidegate --file scripts/deploy/Containerfile .

test-deploy: build ## Check unit, installation, manifests and Prometheus rules (systemd-analyze, pip, prometheus)
	@scripts/test-deploy.sh target/release/tidegate

test-pages: ebpf ## Have chromium look at a page of every kind of report, wide and narrow, light and dark (chromium)
	@scripts/test-pages.sh

test-dashboard: ebpf ## Have chromium look at the live dashboard, wide and narrow, light and dark (chromium)
	@scripts/test-dashboard.sh

duplicates: ## Find what stands twice in the benchmark's code (npx from npm)
	@scripts/duplicates.sh

sim: build ## Simulate the engine over bad links: SEEDS=1000000 [START=0 CONTROL=bbr]
	target/release/tidegate-sim run --seeds $(or $(SEEDS),100000) --start $(or $(START),0) \
		$(if $(CONTROL),--control $(CONTROL))

impaired: build ## Move 50 MB both ways over 20 bad links (root; about an hour a control): [CONTROL="cubic,bbr"]
	TIDEGATE_IMPAIRED_MB=50 TIDEGATE_IMPAIRED_SEEDS=20 TIDEGATE_IMPAIRED_CONTROL="$(CONTROL)" \
		$(RELEASE) test --release --locked $(PROGRAMS) --test lab impaired:: -- --nocapture --test-threads=1

goodput: build ## Compare goodput over bad links with Linux's, CUBIC and BBR (root; about an hour): [ARGS="--quick --control LIST"]
	@scripts/goodput.sh $(ARGS)

fairness: build ## Measure shares of one queue beside Linux, CUBIC and BBR (root; 90 minutes): [ARGS="--quick --only TEXT"]
	@scripts/fairness.sh $(ARGS)

resilience: build ## Compare with nginx, Linux and bare XDP under attack (root; up to 90 minutes): [ARGS="--quick --attacks LIST --html FILE"]
	@scripts/resilience.sh $(ARGS)

flood-memory: build ## Send 50 million spoofed SYNs and look at what is left of them (root; some minutes)
	TIDEGATE_FLOOD_SYNS=50 $(RELEASE) test --release --locked $(PROGRAMS) --test lab flood_memory:: -- --nocapture

compare: build ## Compare with nginx and the kernel's TCP (root, nginx): [ARGS="--quick --html FILE"]
	@scripts/compare.sh $(ARGS)

bench-engine: ebpf $(PROFILE_DATA) ## Measure the TCP engine in memory, beside smoltcp
	$(RELEASE) bench --locked --package tidegate-engine-bench --benches
	$(RELEASE) run --release --locked --package tidegate-engine-bench --bin engine-report

bench-held: ebpf $(PROFILE_DATA) ## Hold 10 million connections in memory (3 GB), and say what each takes: [ARGS="--connections N"]
	$(RELEASE) run --release --locked --package tidegate-engine-bench --bin held -- $(ARGS)

bench-hostile: ebpf $(PROFILE_DATA) ## Measure what acknowledgments of hostile peers cost, beside honest ones: [ARGS=SCRIPT]
	$(RELEASE) bench --locked --package tidegate-tcp --bench hostile_peers -- $(ARGS)

bench-instructions: ebpf ## Count the engine's instructions and compare with the last count (valgrind): [ARGS=--update]
	@scripts/bench-instructions.sh $(ARGS)

fuzz: ## Fuzz the TCP engine: SECONDS=60 for each target [KEEP=1]
	@scripts/fuzz.sh $(if $(KEEP),--keep) $(or $(SECONDS),60)

docs: ebpf ## Write docs/cli.md anew from the help of the programs, and the tables of docs/metrics.md
	$(CARGO) build --locked --package tidegate-bench
	TIDEGATE_UPDATE_DOCS=1 $(CARGO) test --locked --package tidegate --test cli
	TIDEGATE_UPDATE_DOCS=1 $(CARGO) test --locked --package tidegate --bin tidegate the_document_lists_the_metrics

# The XDP program is checked for the host: clippy and rustdoc stop before the linker that only the BPF target needs.
lint: ebpf ## Check format, clippy and rustdoc, with every warning an error; the XDP program included
	@scripts/check-columns.sh
	@scripts/check-lab-sockets.sh
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all $(EBPF) --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --workspace --test lab --test simulation --locked -- -D warnings
	$(CARGO) clippy $(EBPF) --workspace --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(EBPF) --workspace --no-deps --locked

clean: ## Remove what was built
	$(CARGO) clean
	$(CARGO) clean $(EBPF)
