// Bull Board leaves some of its buttons with a drawing and no name, which is nothing to a screen reader.

const NAMES = {
  'lucide-maximize': 'Full screen',
  'lucide-minimize': 'Leave full screen',
  'lucide-settings': 'Settings of this board',
  'lucide-ellipsis-vertical': 'More',
};

function nameButtons() {
  for (const [drawing, name] of Object.entries(NAMES)) {
    for (const button of document.querySelectorAll(`button:not([aria-label]):has(> svg.${drawing}:only-child)`)) {
      button.setAttribute('aria-label', name);
    }
  }
}

new MutationObserver(nameButtons).observe(document.getElementById('root'), { childList: true, subtree: true });
nameButtons();
