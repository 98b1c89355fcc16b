import Brokering
import Testing

@Suite("The limits of a pool's disks")
struct DiskLimitTests {
  private let office = PoolName(rawValue: "office")
  private let first = DesktopID(rawValue: "office-1")
  private let limits = DiskLimits(operations: 500, bandwidth: 50 << 20)

  private func pool(_ limits: DiskLimits = DiskLimits(), spares: Int = 2) -> Pool {
    var pool = Pool.sample("office", .floating, 3, spares, PoolPolicies(diskLimits: limits))
    pool.image = Image(kind: .disk, path: "/disk.raw")
    return pool
  }

  private func world(_ limits: DiskLimits = DiskLimits(), spares: Int = 2) throws -> World {
    var world = World()
    try world.perform(.createPool(pool(limits, spares: spares)))
    return world
  }

  private func change(_ limits: DiskLimits) -> AdminCommand {
    var change = PoolChange()
    change.policies = PoolPolicies(diskLimits: limits)
    return .updatePool(office, change)
  }

  @Test("are there from a desktop's start, and nobody is told twice")
  func start() throws {
    var world = try world(limits)
    world.settle()
    #expect(world.vmms.values.map(\.limits) == [limits, limits])
    world.pass(seconds: 60)
    #expect(world.calls.isEmpty)
  }

  @Test("reach desktops that run when they are changed, which go on as they were")
  func changed() throws {
    var world = try world()
    world.settle()
    let generations = world.vmms.mapValues(\.generation)
    try world.perform(change(limits))
    #expect(
      world.calls.allSatisfy { if case .limitDisk(_, _, limits) = $0 { true } else { false } })
    #expect(world.calls.count == 2)
    world.settle()
    #expect(world.vmms.values.map(\.limits) == [limits, limits])
    #expect(world.vmms.mapValues(\.generation) == generations)
    try world.perform(change(DiskLimits()))
    world.settle()
    #expect(world.vmms.values.map(\.limits) == [DiskLimits(), DiskLimits()])
  }

  @Test("that were changed while a desktop started are told to it then")
  func whileStarting() throws {
    var world = try world(spares: 1)
    try world.perform(change(limits))
    #expect(world.calls.count == 1, "its start alone")
    world.settle()
    #expect(world.vmms[first]?.limits == limits)
  }

  @Test("that change while they are being changed end as they were last said")
  func overtaken() throws {
    var world = try world(spares: 1)
    world.settle()
    try world.perform(change(limits))
    try world.perform(change(DiskLimits(operations: 7)))
    #expect(world.calls.count == 1, "one at a time")
    world.settle()
    #expect(world.vmms[first]?.limits == DiskLimits(operations: 7))
  }

  @Test("are told anew to desktops that ran on while carreld was away")
  func adopted() throws {
    var world = try world(spares: 1)
    world.settle()
    try world.perform(change(limits))
    try world.restartBroker()
    world.settle()
    #expect(world.vmms[first]?.limits == limits)
  }

  @Test("are tried again when a VMM does not answer, which is put on record once")
  func failing() throws {
    var world = try world(spares: 1)
    world.settle()
    try world.perform(change(limits))
    for _ in 0..<3 {
      world.finish(0, well: false)
      #expect(world.calls.isEmpty)
      let deadline = try #require(world.site.nextDeadline)
      #expect(deadline > world.now, "it is not tried without pause")
      world.pass(seconds: 10)
      #expect(world.calls.count == 1)
    }
    #expect(world.decisions.count { $0.reason == .desktopUnlimited } == 1)
    world.settle()
    #expect(world.vmms[first]?.limits == limits)
    #expect(world.site.nextDeadline == nil)
  }

  @Test("that failed are told even where the pool wants what was there, until the VMM ends")
  func failedInVain() throws {
    var world = try world(spares: 1)
    world.settle()
    try world.perform(change(limits))
    world.finish(0, well: false)
    try world.perform(change(DiskLimits()))
    #expect(world.calls.isEmpty)
    world.pass(seconds: 10)
    #expect(world.calls.count == 1, "nobody knows what came to it")
    world.settle()
    #expect(world.vmms[first]?.limits == DiskLimits() && world.site.nextDeadline == nil)
    try world.perform(change(limits))
    world.finish(0, well: false)
    world.end(first, .crashed("gone"))
    world.pass(seconds: 20)
    world.settle()
    #expect(world.vmms[first]?.limits == limits)
    #expect(world.site.nextDeadline == nil)
  }

  @Test("of an earlier VMM's answer say nothing about the present one")
  func stale() throws {
    var world = try world(spares: 1)
    world.settle()
    try world.perform(change(limits))
    let generation = try #require(world.vmms[first]?.generation)
    world.end(first, .crashed("gone"))
    world.calls.removeAll { if case .limitDisk = $0 { true } else { false } }
    world.pass(seconds: 20)
    world.settle()
    try world.perform(change(DiskLimits(operations: 9)))
    world.send(.limited(first, generation: generation))
    world.send(.limitFailed(first, generation: generation, "late"))
    #expect(world.calls.count == 1)
    world.settle()
    #expect(world.vmms[first]?.limits == DiskLimits(operations: 9))
  }

  @Test(
    "that cannot be are refused with the reason",
    arguments: [
      (DiskLimits(operations: 0), "disk-iops is 0: choose 1 to 1000000000"),
      (DiskLimits(operations: -5), "disk-iops is -5"),
      (DiskLimits(bandwidth: 1024), "disk-bandwidth is 1024 bytes a second: choose 65536 to"),
      (DiskLimits(operationsBurst: 9), "disk-iops-burst is a burst above disk-iops: give that too"),
      (
        DiskLimits(bandwidth: 2 << 20, bandwidthBurst: 1 << 20),
        "disk-bandwidth-burst is 1048576 bytes a second, less than disk-bandwidth: choose 2097152"
      ),
    ])
  func refused(limits: DiskLimits, reason: String) throws {
    var world = World()
    let error = #expect(throws: BrokerError.self) { try world.perform(.createPool(pool(limits))) }
    #expect(error?.kind == .invalid)
    #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
  }

  @Test("are for pools with disks, and go with the last of them")
  func withoutDisks() throws {
    var world = try world(limits)
    var kernels = pool(limits)
    kernels.image = Image(kind: .kernel, path: "/kernel")
    let error = #expect(throws: BrokerError.self) { try world.perform(.createPool(kernels)) }
    #expect(error?.description.contains("no disk whose rate could be limited") == true)
    var change = PoolChange()
    change.image = Image(kind: .kernel, path: "/kernel")
    try world.perform(.updatePool(office, change))
    #expect(world.site.pools[office]?.policies.diskLimits == DiskLimits())
  }
}
