// Keeps what the page has loaded, so that it opens again without a network. With a network, the server's newest files count.
// It also adds headers that a file server may not send: two let the page share memory between threads, from the second visit on,
// and one holds the page's worker to the policy of the page, where a <meta> of the page has no effect.

const CACHES = `${self.registration.scope}#`; // other pages of the same origin have caches too
const CACHE = `${CACHES}BUILD`; // export_web.py puts a digest of all files here
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'",
};

self.addEventListener("install", (event) => { self.skipWaiting(); event.waitUntil(keepAgain()); });
self.addEventListener("activate", (event) => event.waitUntil(Promise.all([self.clients.claim(), forgetEarlierBuilds()])));
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answer(event));
});

const earlierBuilds = async () => (await caches.keys()).filter((name) => name.startsWith(CACHES) && name !== CACHE);

/** Fetch anew what earlier builds have kept. Where that fails the earlier build stays, and the browser tries again at the next visit. */
async function keepAgain() {
  const cache = await caches.open(CACHE);
  for (const build of await earlierBuilds()) {
    for (const { url } of await (await caches.open(build)).keys()) {
      if (await cache.match(url)) continue;
      const response = await fetch(url, { cache: "no-cache" });
      if (isWholeFile(response)) await cache.put(url, response);
    }
  }
}

async function forgetEarlierBuilds() {
  await keepAgain(); // what the page has loaded in the meantime
  for (const build of await earlierBuilds()) await caches.delete(build);
}

/** The server's newest version of a file, which is kept; without a network the version that was kept. */
async function answer(event) {
  const [cache, url] = [await caches.open(CACHE), event.request.url.split(/[?#]/)[0]];
  let response = await fetch(event.request, { cache: "no-cache" }).catch(() => null); // asks even where the browser has a copy
  if (response) {
    if (!isWholeFile(response)) return response; // an error or a redirection is the page's business
    event.waitUntil(cache.put(url, response.clone()).catch(() => {})); // without room the page still works, with a network
  } else {
    response = await cache.match(url);
    if (!response) return Response.error();
  }
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value); // not append: twice the same value means nothing
  return new Response(response.body, { status: response.status, headers });
}

function isWholeFile(response) {
  return response.status === 200 && !response.redirected;
}
