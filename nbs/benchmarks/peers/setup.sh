#!/bin/sh
# setup.sh [FOLDER]: one virtual environment a peer, which sees the project's packages. Default: .peers in the repository's root.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
folder=${1:-$root/.peers}
where='import sysconfig; print(sysconfig.get_path("purelib"))'
packages=$("$python" -c "$where")

peer() {  # name, requirements
    env=$folder/$1; shift
    "$python" -m venv --clear --without-pip "$env"
    "$python" -m pip --python "$env/bin/python" install --quiet --no-deps "$@"
    echo "import site; site.addsitedir('$packages')" > "$("$env/bin/python" -c "$where")/project.pth"
}

mkdir -p "$folder"
echo '*' > "$folder/.gitignore"
peer modelopt nvidia-modelopt==0.47.0 pulp==3.3.2 omegaconf==2.4.0 antlr4-python3-runtime==4.9.3
peer prismaquant prismaquant==0.16.2 compressed-tensors==0.20.0 loguru==0.7.3
