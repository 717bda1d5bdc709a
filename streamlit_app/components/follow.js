// Ask for the page again once the registry is no longer as shown, or after a while where it can't tell.
const waiting = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  const { path, shown, seconds, patience } = data;
  let timer;
  const again = (delay) => {
    timer = setTimeout(look, delay * 1000);
    waiting.set(parentElement, timer);
  };

  async function look() {
    let state = null;
    try {
      state = shown && (await (await fetch(path)).json()).state;
    } catch {
      state = shown; // the app is away, and Streamlit says so
    }
    // Meanwhile the page may have been drawn again, or be gone.
    if (waiting.get(parentElement) !== timer || !parentElement.isConnected) return;
    if (state && state === shown) return again(seconds);
    setTriggerValue("changed", true);
    again(patience); // normally the new page has begun to wait by itself by then
  }

  clearTimeout(waiting.get(parentElement));
  again(seconds);
  return () => clearTimeout(waiting.get(parentElement));
}
