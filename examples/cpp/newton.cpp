// Newton's method on a residual and its Jacobian that Python exported; see docs/howto/export.md.
//
//   TORCH=$(python -c "import torch; print(torch.__path__[0])")
//   c++ -std=c++20 -I$TORCH/include -I$TORCH/include/torch/csrc/api/include newton.cpp
//       -L$TORCH/lib -Wl,-rpath,$TORCH/lib -ltorch -ltorch_cpu -lc10 -o newton && ./newton residual.pt2

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: newton PACKAGE.pt2\n";
    return 2;
  }
  c10::InferenceMode no_gradients;
  torch::inductor::AOTIModelPackageLoader residual(argv[1]);
  auto x = torch::zeros({5}, torch::kFloat64);
  for (int step = 0; step < 20; ++step) {
    auto answers = residual.run({x});  // the tensors of the answer, in the order of its leaves
    auto value = answers[0], jacobian = answers[1];
    std::cout << "step " << step << ": " << value.abs().max().item<double>() << "\n";
    if (value.abs().max().item<double>() < 1e-12) {
      std::cout << x << "\n";
      return 0;
    }
    x = x - torch::linalg_solve(jacobian, value);
  }
  return 1;
}
