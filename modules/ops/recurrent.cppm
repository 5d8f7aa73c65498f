// Recurrent layers of one direction over whole sequences: RNN, GRU, LSTM, with PyTorch's gate order and formulas. One product gives
// the input's part of all steps; each step adds the state's part to it and applies one fused kernel. Sequences of a batch are
// independent, so workers take blocks of them through all steps. One node on the tape.
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), invalid_argument (a
// length that is not in [0, seq], an id that is no row), out_of_memory.
export module qorus.ops:recurrent;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

enum class Cell : std::uint8_t {
  rnn,       // h' = tanh(W_ih x + b_ih + W_hh h + b_hh)
  rnn_relu,  // the same with relu
  gru,  // r, z = sigmoid(…); n = tanh(W_in x + b_in + r (W_hn h + b_hn)); h' = (1 - z) n + z h. Rows of the weights: r, z, n.
  lstm,  // i, f, g, o = sigmoid, sigmoid, tanh, sigmoid(W_ih x + b_ih + W_hh h + b_hh); c' = f c + i g; h' = o tanh c'. Rows: i, f, g, o.
};
[[nodiscard]] constexpr std::int64_t gates_of(Cell cell) noexcept {
  return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1;
}

// input: [gates hidden, in], state: [gates hidden, hidden], biases: [gates hidden]; a default bias stands for zeros. The packed ones are
// what ops::pack_weight made of input and state, or default; a recording tape does not read them.
struct CellWeights {
  Result<Tensor> input, state;
  Result<Tensor> input_bias = Tensor(), state_bias = Tensor();
  Tensor packed_input = {}, packed_state = {};
};
struct CellOptions {
  Result<Tensor> h = Tensor(), c = Tensor();  // initial state, [batch, hidden]; default: zeros
  Result<Tensor> lengths =
      Tensor();          // [batch] i32: later steps of a sequence are 0 and leave its state alone; default: all whole
  bool reverse = false;  // from the last step (of each sequence) to the first
  Result<Tensor> ids = Tensor();  // [seq, batch] i32: x is a table [n, in] then, and x[ids[t, b]] the input of step t
};
// y: [seq, batch, hidden], h of each step; h, c: [batch, hidden], the state after each sequence's last step. All carry gradients. c is the
// LSTM's; otherwise invalid.
struct CellStates {
  Tensor y, h, c;
};
// x: [seq, batch, in]; or rows for `ids` to choose from, each of which goes through the input's product once, however often it is chosen.
[[nodiscard]] Result<CellStates> recurrent(Cell cell, const Operand& x, const CellWeights& weights,
                                           const CellOptions& options = {}) noexcept;

}  // namespace qorus::ops
