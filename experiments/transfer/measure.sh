#!/bin/sh
# Every transfer of the table in README.md, by sealed bundles; needs the [train] installation, no GPU.
#   sh experiments/transfer/measure.sh DATA OUT HAM10000_BUNDLE PAD_UFES_20_BUNDLE JOINT_BUNDLE
# DATA holds ham10000/ and pad_ufes_20/. Run it from the root of the checkout.
set -eu
data=$1 out=$2 ham=$3 pad=$4 joint=$5

transfer() { # bundle, dataset, name of the result
    lesion-triage transfer "$1" "configs/$2.yaml" --data-root "$data/$2" --out "$out/$3"
}

transfer "$ham" pad_ufes_20 ham10000-to-pad_ufes_20
transfer "$pad" ham10000 pad_ufes_20-to-ham10000
# Of each part only what the joint bundle was not made from is left: its own test split.
transfer "$joint" ham10000 joint-to-ham10000
transfer "$joint" pad_ufes_20 joint-to-pad_ufes_20
