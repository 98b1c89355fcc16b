import Snapshot

/// Takes machines out of snapshots that somebody made with bad intentions. Shared by the fuzz
/// target and the tests.
package enum SavedMachineFuzzing {
  /// As far as can be without a machine that goes on from it.
  package static func look(at chain: SnapshotChain) {
    for memory in chain.newest.memories { _ = try? TemplateMemory(chain, memory.name) }
    guard let machine = try? SavedMachine(chain) else { return }
    _ = machine.diskSizes
    for name in machine.devices.names {
      guard let bytes = try? machine.devices.state([UInt8].self, of: name) else { continue }
      _ = try? StateDecoder().decode(KernelState.self, from: bytes)
      _ = try? StateDecoder().decode(MachineDescription.self, from: bytes)
    }
  }
}
