# make demo    set up below .cache and .venv, nothing else, then run the main job: boot, kill, fence, move, come back
# make test    set up and run every test, interop and the demo included
# make bench   measure boot, fail-over, kills, clone, iSCSI, TFTP, HTTP, DHCP beside peers, and emulated machines   (JSON in
#              bench/results; a quiet machine)
# make fuzz    fuzz codecs and state machines for ten minutes, then say 1,000,000 wrong PDUs to a live target, or:
#              make fuzz SECONDS=3600 TARGETS="dhcp.server"          make fuzz TARGETS=live PDUS=10000000
# make campaign  look at 100,000 crash states, take out every sync, let every call fail, kill 1,000 times under load,
#                check 200 histories, move a guest 50 times, plant bugs   (JSON in bench/results; goes on where Ctrl-C stopped it), or:
#                make campaign PARTS=states STATES=1000000 SEED=7
# make conformance  hold the target to libiscsi's 230 tests; PEER=tgtd runs tgtd beside it   (JSON in bench/results)
# make long    run all tests that boot machines, those too that take minutes each, then build a Debian and boot it by BIOS and
#              UEFI   (JSON in bench/results; an hour or two without KVM), or:  make long ROUTES=lab/test_debian_dracut.py
# make lint    style, types, layers, spelling
# make lock    write requirements/*.lock anew from pyproject.toml          (needs pip-compile of pip-tools)
# make clean   remove what the others made

SHELL := /bin/bash
as_root := $(if $(filter 0,$(shell id -u)),,sudo)
questions := clone_seconds emulated_seconds blade_seconds boot_seconds failover_seconds resume_seconds overlay_ratio \
             iscsi_vs_peers slow_neighbour two_exporters tftp_seconds http_seconds dhcp_rate debian_seconds personalise_seconds
pip_compile := pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header

.PHONY: demo test long fuzz campaign conformance lint bench setup-demo setup-test lock clean

demo: setup-demo
	@$(as_root) scripts/run panloom demo

test:
	@mkdir -p .cache && scripts/host-state > .cache/host-state.before
	@scripts/setup test
	@$(as_root) scripts/run pytest --numprocesses 2 --no-loadscope-reorder --ignore tests/test_harmless.py
	@$(as_root) env PANLOOM_HOST_STATE=.cache/host-state.before scripts/run pytest tests/test_harmless.py

fuzz: SECONDS := 600
fuzz: PDUS := 1000000
fuzz: setup-test
	@scripts/run python tests/fuzz $(TARGETS) --seconds $(SECONDS) --pdus $(PDUS)

campaign: STATES := 100000
campaign: SEED := 1
campaign: setup-test
	@nice scripts/run python tests/campaign $(PARTS) --states $(STATES) --seed $(SEED)

conformance: setup-test
	@scripts/run python tests/conformance --peer "$(PEER)" --json bench/results/conformance.json

long: setup-test
	@$(as_root) scripts/run python bench/boot_routes.py --json bench/results/boot_routes.json $(ROUTES)
	@[ -n "$(ROUTES)" ] || for question in debian_seconds personalise_seconds; do \
	    $(as_root) scripts/run python bench/$$question.py --json bench/results/$$question.json || exit 1; done

lint: setup-test
	@scripts/run ruff check
	@scripts/run ruff format --check
	@scripts/run mypy
	@scripts/run lint-imports
	@scripts/run codespell
	@for script in scripts/* .ci/run src/panloom/lab/guest/*.sh src/panloom/golden/build.sh src/panloom/node/guest/*.sh \
	    $$(grep -rlE '^#!/bin/(ba)?sh' src/panloom/golden/system); do bash -n $$script || exit 1; done

bench:
	@scripts/setup bench
	@for question in $(questions); do \
	    $(as_root) scripts/run python bench/$$question.py --json bench/results/$$question.json || exit 1; done

setup-demo:
	@scripts/setup demo

setup-test:
	@scripts/setup test

lock:
	$(pip_compile) --output-file requirements/demo.lock pyproject.toml requirements/build.in
	$(pip_compile) --extra test --extra lint --constraint requirements/demo.lock \
	    --output-file requirements/test.lock pyproject.toml requirements/build.in
	@sed -i '/^--/d; /^$$/d' requirements/*.lock  # where this machine takes packages from

clean:
	$(as_root) rm -rf .cache .venv build dist src/*.egg-info
	$(as_root) rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find src tests bench -name __pycache__ -prune -exec $(as_root) rm -rf {} +
