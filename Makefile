# Needs GNU make and a Python 3.11 or 3.13; everything else is fetched on first use and kept in a cache folder.
# make run                          download three files made by Blender from a server of its own
# make run URLS="…" DIRECTORY=…     download yours
# make test                         all tests; SUITE="engine wheel window" picks, PYTEST_ARGS="-k name" narrows
# make test SUITE=windows           all that runs in Python and Blender for Windows, under Wine (Debian, root; 1 GB, kept)
# make test SUITE=windows-3.11      the engine's tests in the Python for Windows of Blender 4.2 to 5.0, under Wine
# make test SUITE=played            the engine on Linux, with Windows' rules for files
# make test SUITE=matrix            imports in Blender 4.2, 5.0 and 5.1 as modules too (1.2 GB, kept)
# make fuzz MINUTES=10 TARGET=      ten minutes for each thing that strangers write, or for those named
# make crash SEED= SEEDS=           die at every operation on a disk, twice, with any damage (tests/engine/test_crash.py)
# make model COUNT=2000 SEED=       resuming as a small model, explored whole, and replayed (tests/resume_model.py)
# make chaos COUNT=2000 SEED=       so many downloads by each host, 30 % of the server's answers faulty, inside Blender
# make kill KILLS=300 WINDOW_KILLS= SEED=   kill Blenders that download at random moments (tests/killing.py)
# make kill SUITE=windows KILLS=100 SEED=   the same in Blender for Windows, under Wine
# make soak MINUTES=30 RUNS=1000    long use in real windows, then what is left; SEED= repeats its order
# make bench BARS="P3 P4" ROUNDS=9 AGAINST=   measure beside others, and beside earlier commits (bench/bench.py)
# make mutants MODULES="ranges names" COUNT=100   do the tests notice a change? (tests/mutating.py)
# make shots STATES="empty failed"  a picture of every state of the list, from real windows, into dist/shots
# make release · repository        the zip with checksums and bill of materials; and a repository for Blender
# make lab CLAIMS="quit timer" RUNS=5   what docs/threads-in-blender.md claims, tried in real Blenders (tests/lab/)
# make build WORKERS=process         the zip; with that word the one for stores that refuse threads in Blender
# make vendor NAME=my_addon DIR=…   the engine into an add-on of yours (docs/authors.md)
# make lint · clean

# As they were written: a $ in a URL is no variable of make's.
override URLS := $(value URLS)
override DIRECTORY := $(value DIRECTORY)
export NAME DIR URLS DIRECTORY SUITE PYTEST_ARGS BARS ROUNDS AGAINST PLOT MODULES CLAIMS SECONDS WORKERS BENCH_ARGS BLENDER MINUTES TARGET SEED SEEDS RUNS COUNT KILLS WINDOW_KILLS WINDOWS STATES
tool = @sh tests/tools/bootstrap.sh

.PHONY: run test fuzz crash model kill chaos soak shots bench lab mutants build vendor release repository lint clean

run:
	$(tool) run.py

test:
	$(tool) test.py

fuzz:
	$(tool) fuzz.py

crash:
	$(tool) crash.py

model:
	$(tool) model.py

chaos:
	$(tool) chaos.py

kill:
	$(tool) kill.py

soak:
	$(tool) soak.py

shots:
	$(tool) shots.py

bench:
	$(tool) bench.py

lab:
	$(tool) lab.py

mutants:
	$(tool) mutants.py

build:
	$(tool) build.py

vendor:
	$(tool) vendor.py

release:
	$(tool) release.py

repository:
	$(tool) release.py repository

lint:
	$(tool) lint.py

clean:
	$(tool) clean.py
