FROM node:22.14.0-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json ./
COPY scripts scripts
COPY src src
RUN node scripts/build.mjs && npm prune --omit=dev

FROM node:22.14.0-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
# Keys live in /var/lib/otp, which belongs to the service's user; the configuration in /etc/otp is only read.
RUN ln -s /app/dist/cli.js /usr/local/bin/otp \
  && install -d -o node -g node -m 0700 /var/lib/otp
USER node
EXPOSE 3000 3001
CMD ["otp", "serve", "--config", "/etc/otp/otp.yaml"]
