// Search in pages that are opened from a folder. Browsers start no worker from file:, so the theme's worker runs in a hidden
// frame, which hears and says what a worker would. Over HTTP the browser's own Worker stays.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      url = new URL(url, document.baseURI);
      this.before = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.append(frame);
      const scope = (this.scope = frame.contentWindow);
      const run = (source) =>
        new Promise((done, failed) => {
          const script = scope.document.createElement("script");
          script.src = new URL(source, url);
          script.onload = done;
          script.onerror = failed;
          scope.document.body.append(script);
        });
      scope.importScripts = (...sources) => sources.reduce((last, source) => last.then(() => run(source)), Promise.resolve());
      scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      run(url).then(() => {
        this.isReady = true;
        this.before.forEach((data) => this.postMessage(data));
      });
    }
    postMessage(data) {
      if (!this.isReady) this.before.push(data);
      else this.scope.dispatchEvent(new MessageEvent("message", { data }));
    }
    terminate() {}
  };
}
