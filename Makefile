# make help lists the commands.

SHELL   := /bin/sh
GO      ?= go
SOURCES ?= vault aws sops
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

ALL_SOURCES := vault aws sops
UNKNOWN     := $(filter-out $(ALL_SOURCES),$(SOURCES))
ifneq ($(UNKNOWN),)
$(error SOURCES: unknown source "$(UNKNOWN)"; known: $(ALL_SOURCES))
endif
comma := ,
space := $(subst ,, )
TAGS  := $(subst $(space),$(comma),$(strip $(patsubst %,no_%,$(filter-out $(SOURCES),$(ALL_SOURCES)))))

BIN   := $(CURDIR)/.cache/bin
OLDER_SOPS := $(CURDIR)/.cache/sops-versions/sops-v3.12.1
# Where the kernel starts the program: shim/internal/signals says why.
ENTRY := -E secret_init_entry
# PID 1 alone is a second program in the same file (tools/join), above the first.
ABOVE := 0x40001000
OUT   ?= bin/secret-init
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false

export PATH := $(BIN):$(PATH)

.PHONY: help build image man demo test integration lint cover bench tools clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the static binary, bin/secret-init (SOURCES="vault aws" leaves sops out)
	@mkdir -p $(dir $(OUT))
	$(BUILD) -tags "$(TAGS)" -ldflags "-s -w $(ENTRY) -X main.stamped=$(VERSION)" -o $(OUT).new ./shim
	$(BUILD) -ldflags "-s -w $(ENTRY) -T $(ABOVE)" -o $(OUT).stay ./shim/stay
	GOOS= GOARCH= $(GO) run ./tools/join $(OUT).new $(OUT).stay
	rm $(OUT).stay
	mv $(OUT).new $(OUT)

image: build ## an image of secret-init alone, for COPY --from=secret-init
	docker build -t secret-init --target secret-init -f Dockerfile.example .

demo: build $(BIN)/sops $(BIN)/age-keygen ## the main job, with SOPS and a throw-away key: no server, no root
	@examples/sops-docker-run/demo.sh

test: $(BIN)/sops $(BIN)/age-keygen ## all that needs no root, no server and no Docker
	CGO_ENABLED=0 $(GO) test ./...
	@echo "left out: what needs root, a real server or Docker; make integration runs it:"
	@grep -rl '^//go:build integration' --include='*_test.go' shim sources tools examples | sort | sed 's/^/    /'

integration: build tools ## real servers, containers and attacks; needs root, gcc and Docker
	$(GO) test -tags integration -race -timeout 30m ./...

cover: tools ## coverage of each package, from all tests
	$(GO) test -tags integration -timeout 30m -coverpkg=./shim/...,./sources/... -coverprofile=coverage.out ./...
	@tools/coverage.sh coverage.out

man: $(BIN)/go-md2man ## the manual page, bin/secret-init.1 (man -l bin/secret-init.1)
	@mkdir -p bin
	$(BIN)/go-md2man -in docs/secret-init.1.md -out bin/secret-init.1

bench: build $(BIN)/sops ## seconds per start, beside the command alone
	$(GO) test -run '^$$' -bench . -benchtime 100x ./bench

lint: $(BIN)/golangci-lint ## the linters; the layers among them
	$(BIN)/golangci-lint run --build-tags integration ./...
	@test -z "$$(gofmt -l shim sources tools examples)" || { gofmt -l shim sources tools examples; exit 1; }

tools: $(BIN)/sops $(BIN)/age-keygen $(BIN)/vault $(OLDER_SOPS) ## the commands that the tests run, built into .cache/bin

$(BIN)/sops $(BIN)/age-keygen $(BIN)/go-md2man: tools/commands/go.mod
	cd tools/commands && CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ $$($(GO) list tool)
	@touch $(BIN)/sops $(BIN)/age-keygen $(BIN)/go-md2man

# The last of what the script builds stands for all.
$(OLDER_SOPS):
	tools/sops-versions.sh $(@D)

# A vault or bao on PATH serves as well.
$(BIN)/vault: tools/vault/go.mod
	@mkdir -p $(BIN)
	found=$$(PATH="$${PATH#*:}" command -v vault || PATH="$${PATH#*:}" command -v bao) && ln -sf "$$found" $@ || \
	    (cd tools/vault && CGO_ENABLED=0 $(GO) build -mod=mod -trimpath -ldflags "-s -w" -o $@ github.com/hashicorp/vault)
	@touch -h $@

$(BIN)/golangci-lint: tools/lint/go.mod
	cd tools/lint && CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

clean: ## remove what make has built, but for the cached tools
	rm -rf bin coverage.out
