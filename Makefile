# Wants GNU make and any Node from 20 on; the Node that runs the code is the one that npm installs, node_modules/.bin/node.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
NODE := node_modules/.bin/node
# Halves the time that a process takes to start: the sources' types are stripped once.
export NODE_COMPILE_CACHE := $(CURDIR)/node_modules/.cache/compile
# Later files win over earlier ones, and the real environment over both.
WITH_ENV := $(NODE) --env-file=.env.example $(if $(wildcard .env),--env-file=.env)
INSTALLED := node_modules/.package-lock.json

.DEFAULT_GOAL := help
.PHONY: help dev test test-faults chaos demo bench infras down migrate build contracts lint clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 21

dev: migrate ## run api, relay and worker here, with readable logs; Ctrl-C stops them
	$(WITH_ENV) deploy/dev.ts

test: $(INSTALLED) ## run every test on servers of its own; ARGS="--project unit" passes arguments to vitest
	node_modules/.bin/vitest run $(ARGS)

bench: $(INSTALLED) ## measure on servers of its own (over an hour); ARGS="--quick" takes two minutes, ARGS="--help" tells more
	@$(NODE) --conditions=oncebox-source bench/main.ts $(ARGS)

test-faults: $(INSTALLED) ## run only the fault suite; ONCEBOX_KILLS=300 for the long form of its random kills
	node_modules/.bin/vitest run --project faults $(ARGS)

chaos: $(INSTALLED) ## kill, stop and restart at random under load, ten minutes; ARGS="--seconds 60 --seed 7", ARGS="--orders"
	$(NODE) --conditions=oncebox-source test/chaos/main.ts $(ARGS)

demo: $(INSTALLED) ## 1,000 customers while the relay, the worker and the broker are killed; a minute
	$(NODE) --conditions=oncebox-source test/chaos/demo.ts

infras: $(INSTALLED) ## bring up MySQL and RabbitMQ: given by URL, in Docker, or from Debian's packages
	@$(NODE) deploy/infra/main.ts up

down: $(INSTALLED) ## stop what `make infras` brought up; the data stays
	@$(NODE) deploy/infra/main.ts down

migrate: infras ## bring the schemas and their users up to date
	@$(WITH_ENV) deploy/migrate.ts

build: ## build the image of every app
	docker compose build

contracts: $(INSTALLED) ## write the contracts' JSON Schemas and docs/asyncapi.yaml, unless a change would break readers
	@npm run --silent contracts

lint: $(INSTALLED) ## check style, types, and that no contract breaks its readers
	npm run lint

clean: $(INSTALLED) ## stop everything and remove it, data and Docker volumes too
	@$(NODE) deploy/infra/main.ts clean

# npm writes this file last, so it is older than package-lock.json exactly when an installation is due. Only errors are
# shown: the npm at hand warns that its own Node is too old for what it installs, but that Node runs none of it.
$(INSTALLED): package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	@touch $@
