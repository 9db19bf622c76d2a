# make run   start everything, console on http://localhost:7759
# make test  install what the tests need and run them all, race detector on
# make bench reads per second and latency over the whole way, next to a floor
# make lint  what CI checks besides the tests

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TOOLS   := $(CURDIR)/.tools
ARGS    ?=

NATS_CLI    := github.com/nats-io/natscli/nats@v0.5.1
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: run build test test-composed bench lint tools chromium clean

run: build
	bin/dianchao standalone $(ARGS)

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/dianchao ./services/dianchao

test: tools
	PATH="$(TOOLS):$$PATH" go test -race -timeout 20m ./...

# The system of docker-compose.yml under load while its parts are killed; needs Docker with the compose plugin
# (deploy/offline where there is no registry), ten minutes and an otherwise idle machine.
test-composed:
	go test -v -count=1 -tags composed -timeout 40m ./services/dianchao/composed $(ARGS)

bench: build
	go run ./services/dianchao/bench $(ARGS)

lint: $(TOOLS)/staticcheck $(TOOLS)/govulncheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	go vet ./...
	$(TOOLS)/staticcheck ./...
	.ci/vulnerabilities $(TOOLS)/govulncheck

tools: chromium $(TOOLS)/nats $(TOOLS)/nats-server

$(TOOLS)/nats:
	GOBIN=$(TOOLS) go install $(NATS_CLI)
$(TOOLS)/staticcheck:
	GOBIN=$(TOOLS) go install $(STATICCHECK)
$(TOOLS)/govulncheck:
	GOBIN=$(TOOLS) go install $(GOVULNCHECK)
$(TOOLS)/nats-server: go.mod
	GOBIN=$(TOOLS) go install github.com/nats-io/nats-server/v2

chromium:
	@for b in chromium chromium-browser google-chrome; do command -v $$b >/dev/null 2>&1 && exit 0; done; \
	if command -v apt-get >/dev/null 2>&1; then \
		if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
		$$sudo apt-get update -q && $$sudo apt-get install -y -q --no-install-recommends chromium fonts-noto-cjk; \
	else echo "the browser tests need Chromium: install it with your system's package manager"; exit 1; fi

clean:
	rm -rf bin $(TOOLS)
