// Keeps a page fresh while somebody looks at it: what the server would show on a reload replaces what is shown, and
// nothing else happens. Without this file every page works, and is as old as its last reload.

const EVERY_MS = 5_000;
const CHOICE = 'otp-console-refresh';

const main = document.querySelector('main[data-refresh]');
const calm = matchMedia('(prefers-reduced-motion: reduce)');

if (main) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'refresh';
  document.querySelector('header .name')?.after(button);

  const chosen = sessionStorage.getItem(CHOICE);
  let wanted = chosen === null ? !calm.matches : chosen === 'on';
  let answered = true;
  show();
  button.addEventListener('click', () => {
    wanted = !wanted;
    sessionStorage.setItem(CHOICE, wanted ? 'on' : 'off');
    show();
    if (wanted) refresh();
  });
  setInterval(refresh, EVERY_MS);
  document.addEventListener('visibilitychange', refresh);

  function show() {
    button.setAttribute('aria-pressed', String(wanted));
    button.textContent = !wanted ? 'Refresh: off' : answered ? 'Refresh: on' : 'Refresh: no answer';
    button.classList.toggle('stale', wanted && !answered);
  }

  async function refresh() {
    if (!wanted || document.hidden || isInUse(main)) return;
    const page = await load();
    answered = page !== null;
    show();
    const fresh = page?.querySelector('main');
    // Somebody may have begun to type, or to select, while the answer was on its way.
    if (!fresh || isInUse(main) || fresh.innerHTML === main.innerHTML) return;
    main.replaceChildren(...fresh.childNodes);
  }
}

/** The page as it would be after a reload; null when the server does not give it. */
async function load() {
  try {
    const response = await fetch(location.href, { signal: AbortSignal.timeout(EVERY_MS) });
    if (!response.ok || response.redirected) return null;
    return new DOMParser().parseFromString(await response.text(), 'text/html');
  } catch {
    return null;
  }
}

/** Focus within, something typed, or text that is being selected: replacing it would take it away. */
function isInUse(element) {
  if (element.contains(document.activeElement)) return true;
  const fields = element.querySelectorAll('input:not([type="hidden"]), textarea');
  if ([...fields].some(({ value, defaultValue }) => value !== defaultValue)) return true;
  const options = element.querySelectorAll('option');
  if ([...options].some(({ selected, defaultSelected }) => selected !== defaultSelected)) return true;
  const selection = getSelection();
  return selection !== null && !selection.isCollapsed && element.contains(selection.anchorNode);
}
