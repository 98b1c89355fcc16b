/// How many desktops boot at the same time.
///
/// A guest that boots takes a processor, and reads its disk, until it has come up. Many at once
/// come up late together, and whoever logs in meanwhile waits with them: spares take their turns.
struct BootBudget: Hashable, Sendable {
  /// With so many that boot, no spare begins; `nil`: with any number one does.
  var most: Int?
  /// Desktops whose guests are coming up, with the start that they are of.
  var comingUp: [DesktopID: UInt64] = [:]
  /// Pools whose last desktop was a clone of a template: these have booted already.
  var cloning: Set<PoolName> = []
  /// Spares that were not begun because others boot.
  var held: Set<DesktopID> = []

  init(most: Int?) { self.most = most }
}

extension Site {
  /// Whether a desktop may begin to start, as far as others that boot are concerned; it is put
  /// down if not. Those that belong to somebody never wait.
  mutating func mayBoot(_ record: Desktop) -> Bool {
    guard let most = boots.most, record.power == .off, record.owner == nil,
      !boots.cloning.contains(record.pool), booting >= most
    else { return true }
    boots.held.insert(record.id)
    return false
  }

  private var booting: Int { underWay.values.count { $0 == .start } + boots.comingUp.count }

  /// Why a spare that is to run is not started yet, if that is because others boot.
  public func bootWait(of id: DesktopID) -> String? {
    guard boots.held.contains(id), desktops[id]?.power == .off else { return nil }
    return "\(booting) desktop(s) boot just now, and spares are started one after another"
  }

  /// The VMM of a desktop runs.
  mutating func comesUp(_ id: DesktopID, generation: UInt64) {
    guard boots.most != nil, let record = desktops[id], record.generation == generation,
      record.power == .running
    else { return }
    boots.comingUp[id] = generation
  }

  mutating func cameUp(_ id: DesktopID, generation: UInt64, _ kind: StartKind) {
    guard boots.comingUp[id] == generation, let record = desktops[id] else { return }
    boots.comingUp[id] = nil
    switch kind {
    case .booted: boots.cloning.remove(record.pool)
    case .cloned: boots.cloning.insert(record.pool)
    case .wentOn: break
    }
  }

  /// What ended does not boot any more.
  mutating func forgetBoots() {
    boots.held = []
    boots.comingUp = boots.comingUp.filter { id, generation in
      guard let record = desktops[id] else { return false }
      return record.generation == generation && record.power == .running
    }
  }
}
