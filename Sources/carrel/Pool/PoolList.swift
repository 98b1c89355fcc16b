import ArgumentParser
import ControlAPI
import ControlClient

struct PoolList: Verb {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists the pools.")

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> [PoolDocument] {
    try await client.get(APIPath("pools"))
  }

  func render(_ answer: [PoolDocument], _ terminal: Terminal) -> String {
    renderPools(answer, terminal)
  }
}

func renderPools(_ pools: [PoolDocument], _ terminal: Terminal) -> String {
  var table = Table(
    "POOL", "KIND", "DESKTOPS", "CLEAN", "IN USE", "FAILED", "MEMORY", "CPUS", "IMAGE")
  for pool in pools {
    table.add(
      .init(pool.name), .init(pool.draining ? "\(pool.kind), being deleted" : pool.kind),
      .init("\(pool.desktops.total)/\(pool.size)"),
      .init(
        "\(pool.desktops.clean)/\(pool.spares)",
        pool.desktops.clean >= pool.spares ? .green : .yellow),
      .init("\(pool.desktops.connected)"),
      .init("\(pool.desktops.failed)", pool.desktops.failed > 0 ? .red : nil),
      .init("\(pool.memoryMiB) MiB"), .init("\(pool.cpus)"), .init(pool.image.path))
  }
  return table.render(
    terminal, empty: "There are no pools. Make one: 'carrel pool create NAME --image FILE'")
}
