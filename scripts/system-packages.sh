#!/bin/sh
# Tesseract reads images; fonts draw the synthetic vaults. In the tests Chromium opens the MLflow UI, Prometheus'
# promtool checks metrics and alerts, and Compose and systemd-analyze check what is in deploy/.
# Installs what is missing where it may, and otherwise says what to type.
set -eu
missing=""
command -v tesseract >/dev/null 2>&1 || missing="$missing tesseract-ocr"
command -v fc-list >/dev/null 2>&1 || missing="$missing fontconfig"
faces=$(fc-list : family 2>/dev/null || true)
for face in "DejaVu:fonts-dejavu-core" "Liberation:fonts-liberation" "FreeSans:fonts-freefont-ttf" "Open Sans:fonts-open-sans" \
  "Carlito:fonts-crosextra-carlito" "Caladea:fonts-crosextra-caladea" "Hack:fonts-hack" "Roboto:fonts-roboto-unhinted"; do
  case "$faces" in *"${face%:*}"*) ;; *) missing="$missing ${face#*:}" ;; esac
done
command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || missing="$missing chromium"
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
lean="" # without what Debian recommends beside them: Docker's daemon, for one
command -v systemd-analyze >/dev/null 2>&1 || lean="$lean systemd"
command -v docker-compose >/dev/null 2>&1 || docker compose version >/dev/null 2>&1 || lean="$lean docker-compose"
[ -n "$missing$lean" ] || exit 0
if command -v apt-get >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ]; then as_root=""; elif sudo -n true 2>/dev/null; then as_root="sudo"; else as_root="no"; fi
  if [ "$as_root" != no ]; then
    echo "installing$missing$lean"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { $as_root apt-get update -qq && $as_root apt-get install -y -qq $missing &&
      $as_root apt-get install -y -qq --no-install-recommends $lean; } >/dev/null && exit 0
  fi
  echo "not installed:$missing$lean. Type: sudo apt-get install --no-install-recommends$missing$lean" >&2
elif command -v brew >/dev/null 2>&1; then
  echo "not installed: tesseract. Type: brew install tesseract" >&2
else
  echo "not installed:$missing$lean. Install Tesseract 5 with its English data to read images." >&2
fi
exit 0
