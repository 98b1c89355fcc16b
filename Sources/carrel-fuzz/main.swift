import CFuzzer
import Glibc

// One program, one fuzz target per run:
//   carrel-fuzz list
//   carrel-fuzz TARGET [libFuzzer options] [corpus directories]

let arguments = CommandLine.arguments
guard arguments.count >= 2 else {
  print("usage: carrel-fuzz list | TARGET [libFuzzer options] [corpus…]")
  exit(64)
}
if arguments[1] == "list" {
  for name in fuzzTargets.keys.sorted() { print(name) }
  exit(0)
}
guard let target = fuzzTargets[arguments[1]] else {
  print("carrel-fuzz: no target \(arguments[1]); `carrel-fuzz list` names them")
  exit(64)
}
// SAFETY: the process's own argument vector, which outlives the call; libFuzzer
// sees it from the target's name on, as its program name.
exit(carrel_fuzz(CommandLine.argc - 1, CommandLine.unsafeArgv + 1, target))
