.PHONY: build demo bench bench-quick bench-stock bench-count test fmt lint clean

export REBAR_CACHE_DIR ?= $(CURDIR)/_build/cache

build:           ## The crate, the NIF and the OTP application
	@scripts/bootstrap.sh build
	cargo build --release --locked
	rebar3 compile

demo:            ## Two BEAM nodes and a Rust node exchange real data: correctness, then speed
	@examples/demo/run.sh

bench:           ## The benchmark: all points of the bars, under an hour, as root. See docs/benchmarks.md
	@scripts/bootstrap.sh bench
	rebar3 compile
	cargo build --release --locked -p netlab -p partisan-bench
	cargo run --release --locked -p partisan-bench -- bars

bench-quick:     ## Its points on loopback, in short runs: under 5 minutes
	@scripts/bootstrap.sh bench
	rebar3 compile
	cargo run --release --locked -p partisan-bench -- quick

bench-stock:     ## Messages per second of stock nodes, Rust nodes, erl_dist and edp_client among each other: 8 minutes
	@scripts/bootstrap.sh bench
	cargo run --release --locked -p partisan-bench -- stock

test:            ## Everything that CI runs
	@scripts/test.sh

bench-count:     ## Instructions per message of every path, against bench/callgrind.tsv
	@bench/callgrind.sh

fmt:             ## Format the Rust code
	cargo fmt --all

lint:            ## Clippy, rustdoc, xref and Dialyzer
	@scripts/bootstrap.sh test
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --workspace --no-deps
	rebar3 xref
	rebar3 dialyzer

clean:           ## Remove everything that was built
	cargo clean
	rm -rf _build priv examples/demo/_build examples/demo/_checkouts
