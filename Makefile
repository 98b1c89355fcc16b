# Carrel. `make demo` shows it, `make test` proves it; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SWIFT_BUILD := swift build -c release
BIN := .build/release
DEMO_DESKTOP := build/demo-desktop/carrel-demo.elf

.PHONY: help deps build desktop demo demo-smoke test check format lint layering safety bench fuzz soak guest-linux clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

deps: ## install the Debian and Python packages Carrel needs (sudo when not root)
	@.ci/deps

build: deps desktop ## build the four programs and the demo desktop
	$(SWIFT_BUILD)

desktop: deps ## build the demo desktop's kernel
	@$(MAKE) --no-print-directory -C assets/demo-desktop

demo: build ## run pools of demo desktops and a GRUB CD; Ctrl-C ends it
	@assets/demo/demo

demo-smoke: build ## the demo, driven by real viewers; pictures end up in build/smoke
	@assets/demo/smoke

test: deps desktop ## every test (those that need /dev/kvm are counted when it is missing)
	@.ci/test

check: deps format-check lint layering safety ## format, layering and SAFETY lines

.PHONY: format-check
format-check:
	@swift format lint --strict --parallel -r Package.swift Sources Tests assets && echo "format: clean"

format: ## reformat all Swift sources
	@swift format -i --parallel -r Package.swift Sources Tests assets

lint: ## words and constructs that do not belong in the sources
	@.ci/lint

layering: ## check every import against the target graph
	@.ci/layering

safety: ## check that every unsafe construct says why it holds
	@.ci/safety

bench: build ## measure against QEMU and floors; prints ratios
	@.ci/bench

fuzz: deps ## run each fuzz target for FUZZ_SECONDS (60)
	@.ci/fuzz

soak: deps desktop guest-linux ## a thousand random snapshots, returns, suspensions and backups of each guest, disks checked each time
	@CARREL_SOAK_CYCLES=$${CARREL_SOAK_CYCLES:-1000} swift test --disable-xctest --filter SoakTests

guest-linux: ## build the small Linux that guests are tested with (about 10 minutes, once)
	@assets/guest-linux/build

clean: ## remove everything that was built
	rm -rf .build .build-fuzz build
