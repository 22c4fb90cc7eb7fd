FROM node:22.14.0-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json ./
COPY scripts scripts
COPY src src
RUN node scripts/build.mjs && npm prune --omit=dev

FROM node:22.14.0-bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="otp-pipeline" \
  org.opencontainers.image.description="One-time passwords of payment providers, each submitted at most once" \
  org.opencontainers.image.licenses="MIT" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}"
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
# Nothing is written at run time, so the root file system may be read-only. Keys and the configuration are mounted; where
# sealing.detailsKeyFile is left to be made, it is made in /var/lib/otp, which then must be a volume.
RUN ln -s /app/dist/cli.js /usr/local/bin/otp \
  && install -d -o node -g node -m 0700 /var/lib/otp
USER node
EXPOSE 3000 3001
# Alive, which does not ask for Redis: a container that is started anew because Redis is away helps nobody. Where console.tls
# is configured this must be another one.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.CONSOLE_PORT || 3001) + '/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# No shell stays in between (the base image's entry point replaces itself): what `docker stop` sends reaches the process, which
# then ends its work in order, given the time: `docker stop --time 75`.
STOPSIGNAL SIGTERM
CMD ["otp", "serve", "--config", "/etc/otp/otp.yaml"]
