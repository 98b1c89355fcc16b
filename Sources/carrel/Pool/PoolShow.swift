import ArgumentParser
import ControlAPI
import ControlClient

struct PoolShow: Verb {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Shows one pool.")

  @Argument(help: "Name of the pool.", completion: .custom(Completions.pools))
  var name: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> PoolDocument {
    try await client.get(APIPath("pools", name))
  }

  func render(_ answer: PoolDocument, _ terminal: Terminal) -> String {
    carrel.render(answer)
  }
}
