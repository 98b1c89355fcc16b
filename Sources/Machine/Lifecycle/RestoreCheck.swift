import LinuxSystem

extension Machine {
  /// Finds out whether a machine of this configuration could go on from a saved one on this
  /// host, as far as that can be without its files and connections: it has the same parts and
  /// memories, devices take their states, and KVM takes the processors'. Nothing is connected,
  /// and nothing runs.
  ///
  /// - Parameter saved: of a snapshot whose pages were verified.
  /// - Throws: `MachineError`, `KVMError`: why not.
  public static func check(
    _ configuration: MachineConfiguration, goesOnFrom saved: SavedMachine
  ) throws {
    try configuration.validate()
    let boot = try BootMedium(configuration.withoutLinks)
    let archive = BoardArchive(saved.devices)
    let core = try BoardCore(
      configuration, try BoardFirmware(configuration, boot), saved: archive,
      stored: saved.storedMemory)
    let lock = Lock()
    try lock.withLock {
      let board = try Board(
        configuration, lock: lock, boot: boot, core: core, saved: archive,
        livedNanoseconds: saved.livedNanoseconds, diskSizes: saved.diskSizes ?? [])
      try board.fillMemory(from: saved)
      try board.restoreKernelState(from: archive)
    }
  }
}
