import CVNCClient
import Foundation

let usage = """
  usage: carrel-bench [--quick] [--json] [--check] [latency] [frames] [idle] [start] [memory]
    [disk] [qcow2] [network] [tap] [graphics] [exits] [linux] [linux-memory]
    [snapshots] [clones]
  Measures carrel-vmm, and a desktop of a pool behind carreld ("site"), beside
  qemu-system-x86_64 with the same guest and viewer; virtio devices beside
  qemu-storage-daemon or the least that the same bytes cost; and the small Linux of
  `make guest-linux`, where that was built. Exits with 1 when something could
  not be measured and, with --check, when a bound is not met.
  """

let groups: [(name: String, run: (Settings) throws -> [Comparison])] = [
  ("latency", measureLatency), ("frames", measureFrames), ("idle", measureIdle),
  ("start", measureStart), ("memory", measureMemory),
  ("disk", measureDisks), ("qcow2", measureQcow2), ("network", measureNetwork),
  ("tap", measureSegments), ("graphics", measureGraphics),
  ("exits", measurePortExits), ("linux", measureLinuxBoot),
  ("linux-memory", measureLinuxMemory), ("snapshots", measureSnapshots),
  ("clones", measureClones),
]

var settings = Settings()
var wanted: [String] = []
var json = false
var checksBounds = false
for argument in CommandLine.arguments.dropFirst() {
  switch argument {
  case "--json": json = true
  case "--check": checksBounds = true
  case "--quick":
    settings.isQuick = true
    settings.rounds = 1
    settings.secondsPerRound = 2
  case let name where groups.contains { $0.name == name }: wanted.append(name)
  default:
    print(usage)
    exit(64)
  }
}

// libvncclient reports every connection; only failures matter here.
carrel_silence_vncclient()
var results: [Comparison] = []
var failed = false
for group in groups where wanted.isEmpty || wanted.contains(group.name) {
  if !json { print(group.name) }
  do {
    let comparisons = try group.run(settings)
    results += comparisons
    if !json { for comparison in comparisons { print(comparison.line) } }
  } catch {
    failed = true
    FileHandle.standardError.write(Data("carrel-bench: \(group.name): \(error)\n".utf8))
  }
}
if json {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
  print(String(decoding: try encoder.encode(results), as: UTF8.self))
}
let missed = results.filter { $0.met == false }
if !json && !missed.isEmpty {
  print(
    "not met: "
      + missed.map { $0.name.trimmingCharacters(in: .whitespaces) }.joined(separator: "; "))
}
exit(failed || (checksBounds && !missed.isEmpty) ? 1 : 0)
