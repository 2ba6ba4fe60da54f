// Keeps what the page has loaded, so that it opens again without a network. With a network, the server's newest files count.
// The two headers let the page share memory between threads, from the second visit on, where the server does not send them.

const CACHE = "kept";
const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(self.registration.scope)) event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  const response = await fetch(request).catch(() => null);
  if (response?.ok) await cache.put(request, response.clone());
  const known = response ?? await cache.match(request, { ignoreSearch: true });
  if (!known) return Response.error();
  const headers = new Headers(known.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value); // not append: twice the same value means nothing
  return new Response(known.body, { status: known.status, headers });
}
