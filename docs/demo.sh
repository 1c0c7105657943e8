#!/bin/sh
# What `make demo` says and runs: a first model, from random weights to a
# classifier. Usage: sh docs/demo.sh [RUN]
set -eu
run=${1:-runs/demo}

step() {
    printf '\n--- '
    cat
    printf '\n$ gptkit %s\n' "$1"
    eval "gptkit $1"
}

step "pretrain --out $run" <<END
1 of 5: pre-training. A language model learns to predict the next token, a
piece of a word. This one, a GPT-2 of 1.1 million parameters, starts from random
weights and reads three times the 2 MB of documentation that come with Python.
At first all 4,096 tokens are about equally likely: a loss of ln 4096 = 8.3.
Watch "val loss", on text that it does not train on, and the samples, which
turn from noise into something like documentation.
END

step "generate 'The function returns' --model $run --top-k 40 --max-new-tokens 60" <<END
2 of 5: sampling. The model continues a text token by token, each drawn from
the 40 most likely. GPT-2 read 40,000 MB, this one 2: expect the right words
in the right style, and little sense.
END

step "eval --model $run --task demo-cloze/gain" <<END
3 of 5: scoring. Which of two sentences really follows a passage? The model
picks the one whose probability the passage raises more. Guessing gets 50%,
and so does an untrained model; this one gets 65 to 70%, since it has learnt
which words belong to one subject. (Counting the words that passage and
sentence share gets 81%: so small a model has far to go.)
END

step "finetune --task demo-classification --model $run --out $run-classification" <<END
4 of 5: fine-tuning. The same weights learn to tell which of eight packages a
docstring is from, while they go on predicting its words (GPT-1's auxiliary
loss). Always naming the commonest package gets 19%.
END

step "eval --model $run-classification --split test" <<END
5 of 5: scoring on other docstrings, whose packages had no part in training or
in the choice of the best epoch. Chance is 19% again.
END

cat <<END

--- You have trained a GPT from scratch. What to look at:
$run/loss.png                  both losses fall together: it learns the
                                    language, not its text by heart
$run-classification/loss.png   the losses of fine-tuning
$run/model/README.md           the model's card

Next, a model of a text of your own, in any language, 100 kB or more:
  . .venv/bin/activate              # once in each shell, to find gptkit
  gptkit pretrain mybook.txt --out runs/mybook
  gptkit generate --model runs/mybook --top-k 40
END
